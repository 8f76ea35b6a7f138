"""One node's storage: the write-ahead log, the head in memory, blocks in a bucket, and their merge.

It knows series, samples and time, and nothing of tenants, networks or the query language.
"""
