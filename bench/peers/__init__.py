"""What a user would pick instead, built the way its documentation says. One module per tool."""
