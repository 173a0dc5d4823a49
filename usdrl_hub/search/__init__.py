"""Search of archives by motion: windows of recordings, their index, and what is alike or unlike in them."""
