"""Research harness: which subset of a noisy image-text pool trains the better CLIP (`python -m benchmarks.image_text`)."""
