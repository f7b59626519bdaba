"""Facts and rules that several packages share, each written once. Pure; imports nothing of msrecd but its errors."""
