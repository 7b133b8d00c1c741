from pydantic import SecretStr

from nanochat_gateway.keys import KeyRing, Scope
from nanochat_gateway.settings import AccessSettings


def ring(api: str = "", admin: str = "") -> KeyRing:
    return KeyRing(AccessSettings(api_keys=SecretStr(api), admin_keys=SecretStr(admin)))


def test_a_key_has_its_scope_and_an_unknown_one_none() -> None:
    keys = ring(api="a, b", admin="c")
    assert [keys.scope_of(key) for key in (b"a", b"b", b"c")] == [Scope.CHAT, Scope.CHAT, Scope.ADMIN]
    assert [keys.scope_of(key) for key in (b"", b"d", b"a, b", b"A", b" a")] == [None] * 5


def test_a_key_in_both_lists_has_the_wider_scope() -> None:
    assert ring(api="a", admin="a").scope_of(b"a") is Scope.ADMIN


def test_blanks_between_commas_are_no_keys() -> None:
    keys = ring(api=" , ,", admin="")
    assert keys.is_empty
    assert keys.scope_of(b"") is None


def test_a_key_beyond_ascii_is_known_by_its_utf8() -> None:
    assert ring(api="schlüssel").scope_of("schlüssel".encode()) is Scope.CHAT


def test_keys_do_not_show_in_settings() -> None:
    assert "secret-key" not in repr(AccessSettings(api_keys=SecretStr("secret-key"), admin_keys=SecretStr("")))
