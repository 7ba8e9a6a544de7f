"""The HTTP service that pict-rs asks: uploads in, decisions out."""
