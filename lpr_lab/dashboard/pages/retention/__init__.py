"""Page `/retention`: what was gained on new languages and lost on the original ones."""
