"""The same documents and questions through other tools, each as its documentation recommends."""
