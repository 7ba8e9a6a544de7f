"""The bundled model `demo`: a small open_clip model of drawn shapes, for trying things out.

It knows shapes and colours, nothing else, and moderates nothing.
"""
