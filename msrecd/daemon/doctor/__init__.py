"""What `msrecd doctor` finds: facts about a machine, and what is wrong with them in the order to fix it."""
