"""The WAL of the simulated SQLite: its format, its index in memory, and its recovery."""

import struct
from typing import TYPE_CHECKING, Final
from zlib import crc32

from tests.simulation.disk import Inode

if TYPE_CHECKING:
    from tests.simulation.sqlite import Connection

PAGE: Final = 512
ROW: Final = struct.Struct(">q8sBqq")
"""The second page: index, digest, whether the row exists, and the keys' two columns."""
KEYS: Final = struct.Struct(">qqH")
"""Each further page is a row of keys: index, seal, length of the rest."""
WAL_HEADER: Final = struct.Struct(">8sQI")
WAL_HEADER_SIZE: Final = 32
FRAME: Final = struct.Struct(">IIQI")
"""Before each page in the WAL: page number, whether it ends a commit, salt, checksum."""
FRAME_SIZE: Final = 24 + PAGE
WAL_MAGIC: Final = b"WAL-----"


class Shared:
    """State shared by all connections to a database: the WAL's index and the locks."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.frames: list[int] = []
        """The page number of each frame."""
        self.checkpointed = 0
        """How many frames were copied to the database."""
        self.salt = 0
        self.checksum = 0
        self.readers: dict[Connection, int] = {}
        """The last frame that each reader uses."""
        self.writer: Connection | None = None
        self.checkpointer: Connection | None = None

    def recover(self, wal: bytearray) -> None:
        """Rebuild the index from the valid frames of the WAL."""
        self.frames, self.checkpointed = [], 0
        magic, self.salt, checksum = WAL_HEADER.unpack_from(bytes(wal[:WAL_HEADER_SIZE]).ljust(32))
        if magic != WAL_MAGIC or checksum != crc32(bytes(wal[:16])):
            self.salt = 0
            return
        self.checksum = checksum
        found: list[int] = []
        running = checksum
        at = WAL_HEADER_SIZE
        while at + FRAME_SIZE <= len(wal):
            number, commits, salt, checksum = FRAME.unpack_from(wal, at)
            if salt != self.salt:
                break
            running = crc32(bytes(wal[at : at + 16] + wal[at + 24 : at + FRAME_SIZE]), running)
            if checksum != running:
                break
            found.append(number)
            if commits:
                self.frames, self.checksum = list(found), running
            at += FRAME_SIZE


SHARED: dict[Inode, Shared] = {}
"""By database. Rebuilt from the WAL when all connections are gone."""


def committed_index(inode: Inode, wal: Inode | None) -> int:
    """Return the index committed in a closed database; 0 if it is truncated."""
    shared = Shared()
    if wal is not None:
        shared.recover(wal.cached)
    for at in range(len(shared.frames) - 1, -1, -1):
        if shared.frames[at] == 2:
            assert wal is not None
            return int(ROW.unpack_from(wal.cached, WAL_HEADER_SIZE + at * FRAME_SIZE + 24)[0])
    if len(inode.cached) < PAGE + ROW.size:
        return 0
    return int(ROW.unpack_from(inode.cached, PAGE)[0])
