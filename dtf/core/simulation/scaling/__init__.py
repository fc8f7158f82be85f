"""Recorded demand replayed in virtual time against a policy: what would it have waited and cost.

A trace (`trace`) of tasks goes through a queue to the workers of one pool (`simulator`) whose size a
controller decides: ours (`shipped`), or a peer by its documented rules (`hpa`, `keda`, `dask`, `ray`).
`outcome` says what came of it.
"""
