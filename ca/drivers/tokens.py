"""Join tokens in the CA's state: made and listed by its owner."""

import secrets

from ca.documents import TOKENS, Documents, token_name
from ca.issue import TokenRecord, read_token
from ca.messages import JoinClaims, encode_token, token_hash


def make_token(documents: Documents, claims: JoinClaims, uses: int = 0) -> str:
    """Return a token's text, which is nowhere else; the state keeps its hash. Raises `StateError`.

    It can be used until its time is over, or ``uses`` times where that is not 0.
    """
    text = encode_token(claims, secrets.token_bytes(32))
    record = TokenRecord(token_hash(text), claims, uses)
    name = token_name(claims.id)
    documents.write(name, record.to_json(), documents.read(name).version)
    return text


def read_tokens(documents: Documents) -> list[TokenRecord]:
    """Return all tokens that are kept, expired ones too. Raises `StateError`."""
    found = ((name, documents.read(name)) for name in documents.names(TOKENS))
    records = (read_token(name, document) for name, document in found)
    return [record for record in records if record is not None]
