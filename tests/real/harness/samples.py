"""The sample rows, and rows made for tests that need many sessions."""

import json
import random
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "data" / "uberagent"
FILETIME_EPOCH_100NS = 116_444_736_000_000_000


def sample_bytes():
    """376 process rows of 8 sessions, exactly as Fluent Bit writes them to TCP."""
    return (DATA / "proxytrace_wire.ndjson").read_bytes()


def session_guid(number, created_ms):
    filetime = created_ms * 10_000 + FILETIME_EPOCH_100NS
    digits = number.to_bytes(4, "big").hex() + "4b1e93a7" + filetime.to_bytes(8, "little").hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def made_rows(sessions, rows_each=70, seed=1, first=1000, now_ms=1_747_033_126_563):
    """Rows of `sessions` logons with a tree each: parents before children, every PID once."""
    draw = random.Random(seed)
    rows = []
    for number in range(first, first + sessions):
        created = now_ms - 40_000 + number * 7
        pids = draw.sample(range(100, 60_000), rows_each)
        for index, pid in enumerate(pids):
            parent = pids[draw.randrange(index)] if index else 4
            rows.append(
                {
                    "date": (created + 40_000) / 1000,
                    "SessionGUID": session_guid(number, created),
                    "SessionID": number,
                    "host": f"HOST-{number % 7}",
                    "LogonProcType": "Session setup",
                    "ProcName": f"process-{index}.exe",
                    "ProcID": pid * 4,
                    "ProcParentID": parent * 4,
                    "ProcStartTimeRelativeMs": index * 5,
                    "ProcLifetimeMs": 100 + index,
                    "TotalLogonDurationMs": 40_000,
                    "ProcUser": "CORP/anna",
                    "SortOrder2": index + 2,
                }
            )
    return rows


def as_lines(rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
