"""Sets limits that this process can never raise again, and becomes the program: limits.py LIMITS FILE ARGUMENTS.

LIMITS is JSON, by number of the resource. From outside it could not be done: a root without CAP_SYS_RESOURCE, as in
most containers, may not set the limits of another user's process.
"""

import json
import os
import resource
import sys

if __name__ == "__main__":
    for number, limit in json.loads(sys.argv[1]).items():
        resource.setrlimit(int(number), (limit, limit))
    # The same options as this interpreter's.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1 : -len(sys.argv)], *sys.argv[2:]])
