"""
facts.py
	What a message of this test is, for all who see one.
"""

import hashlib


def summary(pad):
    return hashlib.md5(pad.encode()).hexdigest()[:12]


def of_payload(payload, event):
    """What is known of a message by its payload, decoded; None: it is none of ours."""
    try:
        return {"lane": payload["lane"], "n": payload["n"], "sum": summary(payload["pad"]), "id": event}
    except (KeyError, TypeError):
        return {"lane": "?", "n": str(payload)[:100], "sum": None, "id": event}
