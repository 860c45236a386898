from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render


class Entrance(forms.Form):
    name = forms.CharField(max_length=20)
    room = forms.SlugField(max_length=40, initial="lobby")


def enter(request: HttpRequest) -> HttpResponse:
    form = Entrance(request.POST or None)
    if form.is_valid():
        request.session["name"] = form.cleaned_data["name"]
        return redirect(room, form.cleaned_data["room"])
    return render(request, "enter.html", {"form": form})


def room(request: HttpRequest, room: str) -> HttpResponse:
    if "name" not in request.session:
        return redirect(enter)
    return render(request, "room.html", {"room": room})
