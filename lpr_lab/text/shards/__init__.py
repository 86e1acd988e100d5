"""A corpus larger than memory: documents and tokens in memory-mapped shards on the disk.

    files, hub  --read-->  documents/   --compare-->  index/   --tokenise-->  tokens/
                 units of 16 MB          splits,                one stream of tokens
                                         repeats dropped        per split and language

Every box is made by several workers out of pieces that are either whole or absent (`storage.staged_directory`), so
that what a kill leaves is used again. `prepare` does the first two steps, `tokens` the third; `corpus` and `blocks`
read what was made. What workers use imports no torch: a worker begins with some 60 MB, where torch alone takes 200.
"""
