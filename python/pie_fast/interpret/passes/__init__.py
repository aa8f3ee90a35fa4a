"""One pass of the model over a corpus for K features, and what it leaves.

kept, blocks    activations of the K, in batches that fit
collecting      the pass; saved_pass goes on with one that was stopped
collected       what it left, without torch
"""
