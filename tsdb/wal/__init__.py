"""The write-ahead log: records, segments, group commit, replay."""
