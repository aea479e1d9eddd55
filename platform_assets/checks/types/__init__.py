"""Check types: each module holds one CHECK and is found by being here."""
