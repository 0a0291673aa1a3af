"""Decoding images and captions, in processes on this machine and on others."""
