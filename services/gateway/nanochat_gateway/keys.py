"""Which key may do what. Kept as digests and compared in constant time, all of them, so that time tells nothing."""

import hashlib
import hmac
from enum import IntEnum

from nanochat_gateway.settings import AccessSettings


class Scope(IntEnum):
    """What a key may do; a higher one may do what the lower ones may."""

    CHAT = 1
    ADMIN = 2


class KeyRing:
    def __init__(self, settings: AccessSettings) -> None:
        keys = [(key, Scope.CHAT) for key in settings.api_key_list]
        keys += [(key, Scope.ADMIN) for key in settings.admin_key_list]
        self._scopes = [(_digest(key.encode()), scope) for key, scope in keys]

    @property
    def is_empty(self) -> bool:
        return not self._scopes

    def scope_of(self, key: bytes) -> Scope | None:
        """The widest scope that the key has, or None for a key that nobody was given."""
        digest = _digest(key)
        return max((scope for known, scope in self._scopes if hmac.compare_digest(known, digest)), default=None)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
