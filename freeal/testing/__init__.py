"""Rehearsals: a chat server that fails as it is told, to run freeal against before real money is spent.

`faultllm` is the server, `plans` what it is told, `answers` what its model says, `batches` its batch API.
Nothing else in freeal imports them.
"""
