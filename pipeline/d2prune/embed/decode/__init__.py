"""Decoding: image bytes to pixels, in processes of this machine and on others."""
