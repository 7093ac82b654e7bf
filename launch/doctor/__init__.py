"""What this machine and job are and what is wrong with them: facts are gathered, findings follow from them."""
