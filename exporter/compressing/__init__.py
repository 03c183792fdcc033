"""``stepdown compress``: files, texts and models of the user, for compression/ to work on."""
