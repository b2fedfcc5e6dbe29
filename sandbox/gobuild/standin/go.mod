// The server in the sandbox's stand-in images.
module sandbox.invalid/standin

go 1.21
