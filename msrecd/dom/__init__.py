"""What the Media specifications borrow from the DOM: exceptions, events, blobs. Imports nothing of ours."""
