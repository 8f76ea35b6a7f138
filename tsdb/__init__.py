"""One node's storage: the write-ahead log, the head in memory, blocks in a bucket, and their merge.

It knows series, samples and time, and nothing of who owns them, of networks or of the query language.
"""
