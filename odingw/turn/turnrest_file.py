"""A TurnRest file (JSON) that may change while the process runs."""

from pathlib import Path

from odingw.config import Turn
from odingw.config.errors import config_error
from odingw.file_state import FileState, file_state
from odingw.secret_files import UnsafeFileError, read_secret
from odingw.turn.settings import TurnSettings, from_turnrest_json


class TurnFile:
    """Reads the file, and again when it has changed.

    Files are read in the calling thread: they are small.

    Args:
        path: where it is.
        beside: gives what such a file cannot say; None: the defaults.

    Attributes:
        path: where it is.
        warnings: what the settings that were read last give cause for; one line each.
    """

    def __init__(self, path: Path, beside: Turn | None = None) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._beside = beside
        self._read_at: FileState = None
        self._settings: TurnSettings | None = None

    def load(self) -> TurnSettings:
        """Read the file, whether it has changed or not.

        Raises:
            ConfigError: it cannot be used; the text is one line that begins with its name.
        """
        # The state is taken before the contents, so that a change in between is seen by the next
        # poll; a failed try leaves none, so that the next poll tries again.
        state = file_state(self.path)
        self._read_at = None
        settings, warnings = from_turnrest_json(self._read(), str(self.path), self._beside)
        self._read_at, self._settings, self.warnings = state, settings, warnings
        return settings

    def poll(self) -> TurnSettings | None:
        """Read the file if it has changed since the last try, or if that failed.

        Where nothing has changed this costs a ``stat``. Symbolic links are followed.

        Returns:
            The settings if they are others than those read last, else None.

        Raises:
            ConfigError: as ``load``; again at every call until the file can be used. What was read
                before is to stay in force.
        """
        if self._read_at is not None and self._read_at == file_state(self.path):
            return None
        before = self._settings
        settings = self.load()
        return None if settings == before else settings

    def _read(self) -> bytes:
        try:
            return read_secret(self.path, any_owner=True)
        except UnsafeFileError as error:
            raise config_error(str(self.path), "", str(error)) from None
        except (OSError, ValueError) as error:
            # A ValueError is a null byte in the path.
            reason = getattr(error, "strerror", None) or str(error)
            raise config_error(
                str(self.path), "", f"cannot read it: {reason}; name a file that odingw may read"
            ) from None
