"""The model we make: a frozen base whose MLPs become mixtures, as a PEFT adapter."""
