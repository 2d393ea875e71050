"""What an answer is worth: evidence, expected accuracy and the verdict."""
