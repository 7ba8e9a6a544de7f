"""The inference service: media in, similarities to concepts out. It knows no thresholds."""
