"""The tests. Each one's name is the sentence that it proves."""
