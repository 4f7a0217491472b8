"""The client of an OpenAI-compatible server; the only place with asyncio and SQLite.

The stations of a call, a file each, in the order in which it passes them:

    calls            all conversations of a step, in a thread of their own (`loop`)
    conversation     one conversation -> one reply
    cache            was it answered before?
    limits           a slot; later, the rates
    circuit_breaker  is the endpoint up?
    retry            another request for a failure that may pass
    ledger           does its cost fit the caps?
    request          one request, through `client`; its answer is read by `response`

`endpoint` holds the settings, `step` the state of a step and of a call, `deadlines` their clocks,
`failures` the kinds of failures and their reasons.
"""
