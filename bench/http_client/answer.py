"""What the upstream answers: so many events, one after another."""

CHUNKS = 40
SECONDS_A_CHUNK = 0.005
EVENT = (
    b'data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1795563568,'
    b'"model":"gpt-x","choices":[{"index":0,"delta":{"content":" parcel"},"finish_reason":null}]}'
    b"\n\n"
)
SIZE = CHUNKS * len(EVENT)
