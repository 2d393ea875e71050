"""From one scan to one answer: labels, volumes and probabilities."""
