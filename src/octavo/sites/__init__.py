"""Sites: which operators a rule covers, and what each of them reads as integers."""
