from django.urls import path, re_path

from . import views

ROOM = "^rooms/(?P<room>[-a-zA-Z0-9_]{1,40})/$"  # the page, and its WebSocket

urlpatterns = [
    path("", views.enter),
    re_path(ROOM, views.room),
]
