"""What looks like a secret, and why: a short list of what people push by mistake most often.

A file is told by its name, or by the first bytes of its content. A text that only mentions a key
(a test, a document) is none, so contents are looked at where keys are kept whole.
"""

import re
from fnmatch import fnmatchcase

SCAN_BYTES = 2**20
"""Contents of larger files are not looked at: keys are small."""

_NAMES = {
    ".env": "environment files hold passwords",
    ".env.*": "environment files hold passwords",
    "id_rsa": "it is named as an SSH private key",
    "id_dsa": "it is named as an SSH private key",
    "id_ecdsa": "it is named as an SSH private key",
    "id_ed25519": "it is named as an SSH private key",
    "credentials.json": "it is named as credentials of a cloud",
    ".git-credentials": "git keeps passwords in it",
    ".netrc": "it holds passwords of servers",
    ".pgpass": "it holds passwords of databases",
    ".pypirc": "it holds passwords of package indexes",
    "*.kdbx": "it is a password database",
    "*.p12": "it holds a private key",
    "*.pfx": "it holds a private key",
}
_EXAMPLES = (".env.example", ".env.sample", ".env.template", ".env.dist", ".env.defaults")
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
_AWS_KEY = re.compile(rb"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Z0-9])")
_AWS_EXAMPLE = b"EXAMPLE"
"""How the keys of AWS's own documents end."""
_GITHUB_TOKEN = re.compile(rb"(?<![A-Za-z0-9_])gh[pousr]_[A-Za-z0-9]{36}(?![A-Za-z0-9])")
_SERVICE_ACCOUNT = re.compile(rb'"type"\s*:\s*"service_account"')


def suspicion(path: str, content: bytes) -> str:
    """Why a file looks like a secret; "" if it does not. `content`: all of it, or its first SCAN_BYTES."""
    name = path.rpartition("/")[2]
    if name not in _EXAMPLES:
        for pattern, reason in _NAMES.items():
            if fnmatchcase(name, pattern):
                return reason
    key = _PRIVATE_KEY.search(content)
    if key is not None and (key.start() == 0 or name.endswith((".pem", ".key"))):
        return "it holds a private key"
    if any(not found.endswith(_AWS_EXAMPLE) for found in _AWS_KEY.findall(content)):
        return "it holds what looks like an access key of AWS"
    if _GITHUB_TOKEN.search(content):
        return "it holds what looks like a token of GitHub"
    if name.endswith(".json") and _SERVICE_ACCOUNT.search(content) and _PRIVATE_KEY.search(content):
        return "it holds the key of a service account"
    return ""
