"""A store of objects that are named by their content, and of few small documents that are changed by compare-and-swap.

    objects/sha256/ab/abcd...     create-only: a name has one content for ever
    channels/NAME.json            which release a channel points at; changed by compare-and-swap
    stages/NAME/KEY.json          what a finished stage is made of; create-only

interface.py has the verbs, folder.py and s3.py do them, objects.py re-hashes all that is read.
"""
