"""What a student learns from its teacher: answers, hidden states, attention, tokens."""
