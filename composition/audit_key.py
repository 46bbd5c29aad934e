"""The key that signs heads of the audit trail: a file of the data directory, made when it is first needed."""

from pathlib import Path

from backends.ports.audit_signing import AuditKey
from gateway.admin.secret_file import load_or_make


class AuditKeyFile:
    """Called, it gives the key. Raises OSError when the file can be neither read nor made."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "audit.key"
        self._key: AuditKey | None = None

    def __call__(self) -> AuditKey:
        if self._key is None:
            self._key = AuditKey(load_or_make(self._path))
        return self._key
