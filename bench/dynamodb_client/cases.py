"""What is asked and answered, the same for all: ten turns of a session, 900 bytes each."""

import base64

TABLE = "sessions"
TEXT = "What a turn consists of, as text of a usual length. " * 17
BLOB = base64.b64encode(TEXT.encode()).decode()
ITEMS = [
    {
        "pk": {"S": "acme#ada#s1"},
        "sk": {"S": f"T#{number:08}"},
        "agent": {"S": "orders"},
        "created_at": {"N": "1700000000.25"},
        "expires_at": {"N": "1700086400"},
        "turn": {"B": BLOB},
    }
    for number in range(10)
]
