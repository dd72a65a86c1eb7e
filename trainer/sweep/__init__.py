"""Many trainings of one preset that differ in a few fields, and what they show (`trainer sweep`)."""
