"""Events, made without a call: what connection.py means by ``events.Text(...)`` when it is compiled."""

from wsframe cimport events


cdef inline events.Text Text(object data, bint final=True):
    cdef events.Text event = events.Text.__new__(events.Text)
    event.data = data
    event.final = final
    return event


cdef inline events.Binary Binary(object data, bint final=True):
    cdef events.Binary event = events.Binary.__new__(events.Binary)
    event.data = data
    event.final = final
    return event
