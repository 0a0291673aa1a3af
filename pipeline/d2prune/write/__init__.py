"""The write stage: copy the kept samples into numbered output tars."""
