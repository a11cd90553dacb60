"""Models in the files of other programs, with a card that says what they are."""
