"""What runs in the decoder processes: from the bytes of a file to views of the model's size.

Strangers' bytes are decoded here and nowhere else. `worker` is the process, `sandbox` takes away
what it does not need, `decode` leads one file through the other modules.
"""
