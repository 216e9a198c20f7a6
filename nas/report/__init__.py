"""What there is to say about studies and networks, as data; printing and drawing are somebody else's."""
