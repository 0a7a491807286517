"""How everything is kept on disk: whole or not there, sealed, by one writer at a time, and knowing what it belongs to.

``writing`` puts bytes under a name in one step, ``locks`` gives a file to one writer, ``sealing`` tells whether a file
is what was written, ``documents`` are sealed JSON, ``journal`` is a file that grows line by line. ``tensors`` and
``checkpoints``, which hold where a long run stands, need torch and are imported by name.
"""

from thesis_kit.files.documents import Saved, parse_json, read_document, write_document
from thesis_kit.files.journal import Journal, OtherRun
from thesis_kit.files.locks import Busy
from thesis_kit.files.sealing import DamagedFile, canonical, digest, seal, unseal
from thesis_kit.files.writing import WriteFailed, note, only_writer, renewal, settle, write_atomic, write_together

__all__ = [
    "Busy", "DamagedFile", "Journal", "OtherRun", "Saved", "WriteFailed", "canonical", "digest", "note", "only_writer",
    "parse_json", "read_document", "renewal", "seal", "settle", "unseal", "write_atomic", "write_document",
    "write_together",
]  # fmt: skip
