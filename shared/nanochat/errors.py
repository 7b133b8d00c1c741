"""Every error that is somebody's mistake or a part's failure, in one tree.

    NanochatError
    ├── InvalidRequest            the caller's input is wrong                       400 (422 on the training API)
    │   ├── ContextTooLong        more tokens than the model takes
    │   ├── InvalidConfig         an unknown key, a wrong type, an impossible size
    │   └── DataError             a dataset or a conversation file cannot be used
    ├── NotFound                  job, model, checkpoint, dataset or tokenizer      404
    ├── Conflict                  wrong state, or an idempotency key used twice     409
    ├── Unauthorized              no key, or a wrong one                            401
    ├── Forbidden                 a key without the needed scope                    403
    ├── TooLarge                  the body is over a limit                          413
    ├── RateLimited               this key is over its limit                        429
    ├── Unavailable               saturated, draining, no model yet, a peer is away 503
    ├── DeadlineExceeded          an answer did not come in time                    504
    ├── DiskFull                  no room for what is to be written                507
    ├── CheckpointCorrupt         a manifest is missing or does not verify
    ├── PeerLost                  another rank of a run has ended, and said why itself
    ├── OutOfMemory               a training step or an evaluation does not fit
    └── TrainingDiverged          loss or gradient not finite for too long

A message says what was wrong, what was found, and what to do. Our own mistakes are asserts, never in this tree.
`code` is stable and machine-readable; `param` names the offending field when there is one.
"""


class NanochatError(Exception):
    """Base of the tree. `status` is the HTTP status that services answer with."""

    status = 500
    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequest(NanochatError):
    status = 400
    code = "invalid_request"


class ContextTooLong(InvalidRequest):
    code = "context_length_exceeded"


class InvalidConfig(InvalidRequest):
    code = "invalid_config"


class DataError(InvalidRequest):
    code = "data_error"


class NotFound(NanochatError):
    status = 404
    code = "not_found"


class Conflict(NanochatError):
    status = 409
    code = "conflict"


class Unauthorized(NanochatError):
    status = 401
    code = "invalid_api_key"


class Forbidden(NanochatError):
    status = 403
    code = "insufficient_scope"


class TooLarge(NanochatError):
    status = 413
    code = "request_too_large"


class RateLimited(NanochatError):
    status = 429
    code = "rate_limit_exceeded"


class Unavailable(NanochatError):
    status = 503
    code = "unavailable"


class DeadlineExceeded(NanochatError):
    status = 504
    code = "deadline_exceeded"


class DiskFull(NanochatError):
    status = 507
    code = "disk_full"


class CheckpointCorrupt(NanochatError):
    status = 409
    code = "checkpoint_corrupt"


class PeerLost(NanochatError):
    code = "peer_lost"


class OutOfMemory(NanochatError):
    code = "out_of_memory"


class TrainingDiverged(NanochatError):
    code = "training_diverged"
